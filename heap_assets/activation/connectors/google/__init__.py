"""Google: audiences and conversions of the Data Manager API, and of the older Ads endpoints."""
