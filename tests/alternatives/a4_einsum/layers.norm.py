"""By PyTorch's own norm."""

import torch.nn.functional as F


class GatedRMSNorm:
    def forward(self, x, gate):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps) * F.silu(gate)
