"""The lecture's derivations as readable code: DD2424 lecture 4, "k-layer Neural Networks".

Each module is plain NumPy, imports nothing from the rest of gpunet, and says beside every function which
equation it is. The code is written to be read and to check the fast layers against; it is not fast. Arrays
are float64 throughout: convert before calling. The rows L1 to L25 are those of the documentation's table of
the lecture's contents.

====================  ===========  ==========================================================================
module                rows         contents
====================  ===========  ==========================================================================
``activations``       L3           sigmoid, tanh, ReLU, leaky ReLU, ELU and their derivatives in the scores
``single_example``    L4, L6       back propagation for one example, node by node, with explicit Jacobians
``batch_gradient``    L4, L7       the gradient of a batch: loop over examples, and vectorised, for k layers
``batch_norm``        L22 to L24   batch normalisation forward, at test time, and backward term by term
====================  ===========  ==========================================================================
"""
