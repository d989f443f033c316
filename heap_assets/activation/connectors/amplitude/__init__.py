"""Amplitude: user properties and events."""
