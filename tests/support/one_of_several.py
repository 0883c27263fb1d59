"""`penchant` as one of several processes; tells how many wrapped models are left when their process group goes."""

from __future__ import annotations

import gc

from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from penchant.cli import main

end_training = Accelerator.end_training


def told(accelerator: Accelerator) -> None:
    """See `Accelerator.end_training`."""
    left = sum(isinstance(each, DistributedDataParallel) for each in gc.get_objects())
    print(f"wrapped models left: {left}")
    end_training(accelerator)


Accelerator.end_training = told
main()
