"""What detections are made of."""
