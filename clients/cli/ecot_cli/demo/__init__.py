# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot demo`: three cooperatives on one machine, driven as their members would drive them, and checked at every step.

- `processes`: the three `ecot-node` processes;
- `cast`: members with keys of their own;
- `plays`: listening, real or generated;
- `story`: the seven steps;
- `report`: what is shown.
"""
