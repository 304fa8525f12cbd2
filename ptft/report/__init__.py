"""What people see of a run: lines and bars, trackers, charts, its page; nothing here trains."""
