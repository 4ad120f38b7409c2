"""Whether the saddle of gradient descent is found elsewhere: unbalanced tasks, softmax attention, depth."""
