"""What answers for a bundle: PyTorch or an exported model, behind the same few lines."""
