"""What people look at: tables and pictures, as pure functions of results and detections."""
