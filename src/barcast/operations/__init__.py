"""Running things: pipeline runs, training queue, schedules, monitoring."""
