"""One operator a file: the maths, plain-torch truth, kernels, launcher, registration."""
