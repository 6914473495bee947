"""Pictures for people: instances drawn on images, contact sheets."""
