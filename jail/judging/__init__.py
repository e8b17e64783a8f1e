"""What a judge makes of what a program did: pure functions and one stream, no sandbox and no HTTP.

comparison: expected output against what is written, as it comes. checker: what a checker program said.
verdict: the status of a test and of a job. scores: points. vocabulary: the words of other judges.
"""
