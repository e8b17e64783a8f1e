"""What a checker program said, by the convention that it follows."""
