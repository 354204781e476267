"""One module for each experiment; :mod:`gpunet.lecture.catalogue` lists them."""
