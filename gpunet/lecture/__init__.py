"""The lecture, runnable: DD2424 lecture 4, "k-layer Neural Networks".

:mod:`gpunet.lecture.derivations` has the lecture's equations line by line, in plain NumPy;
:mod:`gpunet.lecture.experiments` one experiment for each of the rows L1 to L25 of docs/lecture.md, run by
``gpunet lecture NAME``.
"""
