"""The places where a rule can live: a Lightning callback, a LightningModule, an Avalanche plugin."""
