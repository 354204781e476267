"""Learning rules that stand on their own: from the perceptron to layer-wise pre-training (lecture rows L9 to L13)."""
