"""The one training loop, for pretraining and fine-tuning."""

from ptft.train.loop import TrainResult, exit_code, train
from ptft.train.memory import predict_memory

__all__ = ["TrainResult", "exit_code", "predict_memory", "train"]
