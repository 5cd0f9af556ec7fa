"""What a trained model is used for: measuring functions, arrays in, numbers out."""
