"""What notebooks show: figures, widgets, and the versions behind their numbers."""
