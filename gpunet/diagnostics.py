"""What happens inside a network: activations, gradients, saturation, dead units, updates, layer by layer."""
