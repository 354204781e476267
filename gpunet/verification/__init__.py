"""``gpunet verify``: every operation of a device against the specification, on the user's own machine.

A check is data: an operation with its arrays (:mod:`~gpunet.verification.operation`), or something that whole networks
do (:mod:`~gpunet.verification.networks`). The tests of the kernels run the same ones on the emulated device.
"""
