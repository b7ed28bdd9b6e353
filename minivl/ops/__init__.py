"""Pure functions of tensors, no weights, one idea a file. Reading order:

linear_attention → delta_rule → gated_delta_rule → sliding_window → short_conv → rotary.
"""
