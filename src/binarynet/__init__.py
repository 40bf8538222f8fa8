"""Binarized Neural Networks."""
