"""Azure Synapse's dedicated SQL pools and Microsoft Fabric's warehouses, to read from and to publish to."""
