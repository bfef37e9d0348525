"""Focal losses. ``N`` samples of ``C`` classes; a target outside 0 to ``C - 1`` is background."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` ``[N, C]`` from logits; an empty ``weight`` is none."""
    is_class, p, log_p, log_q = _sigmoid(input, target)
    positive, negative = -alpha * (1 - p) ** gamma * log_p, -(1 - alpha) * p**gamma * log_q
    output.copy_(torch.where(is_class, positive, negative) * _row_weights(weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` ``[N, C]`` with the derivative of each loss by its own logit."""
    is_class, p, log_p, log_q = _sigmoid(input, target)
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_q - p)
    grad_input.copy_(torch.where(is_class, positive, negative) * _row_weights(weight, target)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` ``[N]`` from probabilities ``[N, C]``."""
    is_class, p, log_p = _softmax(input, target)
    loss = -alpha * (1 - p) ** gamma * log_p
    output.copy_(torch.where(is_class, loss, 0) * _row_weights(weight, target))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` ``[N, C]`` with the derivative by the logits; ``buff`` ``[N]`` is room to work in."""
    is_class, p, log_p = _softmax(input, target)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * log_p - (1 - p) ** gamma)
    buff.copy_(torch.where(is_class, slope, 0) * _row_weights(weight, target))
    one_hot = F.one_hot(target.clamp(0, input.shape[1] - 1), input.shape[1])
    grad_input.copy_(buff[:, None] * (one_hot - input))


def _sigmoid(logits, target):
    is_class = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    floor = torch.log(torch.tensor(torch.finfo(logits.dtype).tiny)).item()
    log_p, log_q = F.logsigmoid(logits).clamp(min=floor), F.logsigmoid(-logits).clamp(min=floor)
    return is_class, logits.sigmoid(), log_p, log_q


def _softmax(probabilities, target):
    is_class = (target >= 0) & (target < probabilities.shape[1])
    p = probabilities.gather(1, target.clamp(0, probabilities.shape[1] - 1)[:, None])[:, 0]
    return is_class, p, p.clamp(min=torch.finfo(p.dtype).tiny).log()


def _row_weights(weight, target):
    if weight.numel() == 0:
        return torch.ones_like(target, dtype=weight.dtype)
    is_class = (target >= 0) & (target < len(weight))
    return torch.where(is_class, weight[target.clamp(0, len(weight) - 1)], 1)
