"""MMNERD: tweets and web captions with pictures in English, French, German and Spanish (Wang et al. 2024)."""
