"""Operations beneath the models that depend on the device: attention kernels, oneDNN products, copies."""
