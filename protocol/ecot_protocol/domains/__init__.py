# SPDX-License-Identifier: AGPL-3.0-or-later
"""The domains, low to high: coop, membership, shares, trade, governance, funding, catalogue, royalty, federation."""
