# SPDX-License-Identifier: AGPL-3.0-or-later
"""Members, and the persons who may act for them."""
