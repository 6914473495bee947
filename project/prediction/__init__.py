"""From pictures to detections, and to what people make of them."""
