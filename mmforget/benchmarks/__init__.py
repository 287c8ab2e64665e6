"""What mmforget's speed is measured with: references, variants, levels, and their report.

``tools/analysis_tools/benchmark.py`` is the command. The references need loralib and peft.
"""
