"""What a judge makes of what a program did: pure functions and one stream, no sandbox and no HTTP.

comparison: expected output against what is written, as it comes; made of ordered, unordered, forms, places
and expected. checker: what a checker program said. verdict: the status of a test, a step and a job. scores:
points. vocabulary: the words of other judges. shapes: what of all this is told.
"""
