"""Salesforce: leads, contacts, opportunities and other objects."""
