"""What models are run on: text, images, sound and other kinds, by what a forward method takes and by model type."""
