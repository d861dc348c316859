"""Networks. One U-Net serves every target."""
