"""Template of the model card that goes to the Hub with a trained model."""
