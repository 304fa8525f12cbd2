"""The one training loop, for pretraining and fine-tuning."""

from ptft.train.cost.memory import predict_memory
from ptft.train.run import TrainResult, exit_code, train

__all__ = ["TrainResult", "exit_code", "predict_memory", "train"]
