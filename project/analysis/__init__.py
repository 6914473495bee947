"""What a recipe costs, and whether its anchors fit the data."""
