"""What can be seen of a figure."""

from matplotlib.text import Text


def texts(figure):
    """All texts that are drawn."""
    # Matplotlib keeps labels of ticks outside the axis, which it does not draw.
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [tick for axis in axes for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]]
    drawn = [tick for axis in axes for tick in axis._update_ticks()]
    undrawn = {id(label) for tick in ticks if tick not in drawn for label in (tick.label1, tick.label2)}
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if id(text) not in undrawn]


def check_texts(figure):
    """Every text lies inside the figure, the panels below the title; labels of all ticks lie apart."""
    frame = figure.bbox.padded(1)
    shown = texts(figure)
    for text in shown:
        box = text.get_window_extent()
        inside = frame.x0 <= box.x0 and frame.y0 <= box.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1
        assert inside, f"{text.get_text()!r} at {box} leaves {frame}"
    for part in [*figure.axes, *figure.legends]:
        assert part.get_tightbbox().y1 <= figure._suptitle.get_window_extent().y0 + 1
    panels = [panel for axes in figure.axes for panel in (axes, *axes.child_axes)]
    ticks = [axis.get_ticklabels(which="both") for axes in panels for axis in (axes.xaxis, axes.yaxis)]
    labels = [label for each in ticks for label in each if label in shown]
    boxes = [label.get_window_extent().padded(-1) for label in labels]
    for i, box in enumerate(boxes):
        over = [labels[j].get_text() for j, other in enumerate(boxes[:i]) if box.overlaps(other)]
        assert not over, (labels[i].get_text(), over)


def tick_texts(labels):
    """The texts of labels."""
    return [label.get_text() for label in labels]
