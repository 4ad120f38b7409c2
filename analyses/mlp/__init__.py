"""An MLP, or a second attention layer, beside the OV circuit: is the untold still deduced, and where?"""
