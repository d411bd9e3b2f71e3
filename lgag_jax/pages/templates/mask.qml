{% extends "raster.qml" %}
{% block type %}type="paletted"{% endblock %}
{% block colours %}
      <colorPalette>
        <paletteEntry value="0" color="#000000" alpha="0" label="background"/>
{% for name, colour in classes %}
        <paletteEntry value="{{ loop.index }}" color="{{ colour }}" alpha="255" label="{{ name }}"/>
{% endfor %}
      </colorPalette>
{% endblock %}
