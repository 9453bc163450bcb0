"""Copies of one case, and nnU-Net's trainer for base, fine-tuned and retrained models.

Uses `nnunet`; knows neither the matrix nor what the models are for.
"""
