"""Providers: code that can run models. One small file each."""
