"""HubSpot: contacts and companies, custom events, static lists."""
