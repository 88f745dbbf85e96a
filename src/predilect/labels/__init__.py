"""What can be said about a photograph: tasks, their classes, and how raw terms become classes."""
