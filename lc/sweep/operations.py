"""How many floating-point operations a network takes. Building and counting all networks of the paper takes a minute."""

# Millions for an image of 32 px (Figure 1a), and for an image of 224 px (Figure 1b and Table 2)
LOW_RESOLUTION = {"ResNet-14": 213.3, "ResNet-18": 280.4, "ResNet-34": 582.4, "ResNet-50": 651.6, "ResNet-101": 1257.7,
                  "Wide-ResNet-50x2": 1844.9, "MobileNet-v2": 176.0}
IMAGENET = {"ResNet-18": 3628, "ResNet-18d": 4107, "ResNet-50": 8178, "ResNet-50d": 8658, "ResNeXt-50-32x4d": 8461,
            "Wide-ResNet-50x2": 22796, "MobileNet-v2": 601.5, "MobileNet-v3-S": 113, "MobileNet-v3-L": 433.2}
FOLDING = 9667  # millions to combine the filters of ResNet-18d-LCx1, once a mini-batch
PIXELS = 32 * 32


def operations(run):
    """Operations of a forward pass in training, for one image. LC-Blocks combine their filters once a mini-batch."""
    depth, width, expansion, kernel, between = run.architecture
    batch = min(256, run.recipe.batch_size)
    if hasattr(run.recipe, "image_size"):
        return 1e6 * (IMAGENET[run.model.partition("-LCx")[0]] * (run.recipe.image_size / 224)**2 + FOLDING * expansion / batch)
    if not depth:
        return 1e6 * LOW_RESOLUTION[run.model]
    # A stage has twice the channels and a quarter of the pixels of the one before: each convolution costs the same, but for the
    # stem and the first of a stage, which has half the input channels.
    spatial = PIXELS * width * kernel**2 * (3 + width * (depth - 3))
    shortcuts_and_classifier = PIXELS * width**2 + 40 * width
    if between:
        blocks = expansion * (spatial + PIXELS * width**2 * (depth - 1))
    else:
        blocks = spatial + expansion * width**2 * kernel**2 * (3 + width * (73 * (depth - 2) // 3 - 36)) / batch
    return 2 * (blocks + shortcuts_and_classifier)
