# SPDX-License-Identifier: AGPL-3.0-or-later
"""Commands by domain; `ecot_cli.app` lists them."""
