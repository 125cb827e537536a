"""What is learned: pure functions init, loss, next_target, encode (and predict) behind one contract, in base.py."""
