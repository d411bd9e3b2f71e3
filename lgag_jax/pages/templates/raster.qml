<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.0.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer {% block type %}{% endblock %} band="{% block band %}1{% endblock %}" opacity="1" alphaBand="-1" nodataColor="">
      <rasterTransparency/>
{% block colours %}{% endblock %}
    </rasterrenderer>
    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
    <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0"/>
    <rasterresampler maxOversampling="2"/>
  </pipe>
</qgis>
